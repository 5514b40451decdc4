/*
 * A JMS application on Qpid JMS, which knows nothing of the gateway: it sends one message of each
 * kind to a queue, takes as many from another one, and prints what it sees of each, one line for a
 * property. `java -cp JARS Jms.java URL IN OUT`; the lines of those sent come first, `==` between.
 */
import jakarta.jms.BytesMessage;
import jakarta.jms.Connection;
import jakarta.jms.DeliveryMode;
import jakarta.jms.JMSException;
import jakarta.jms.MapMessage;
import jakarta.jms.Message;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.ObjectMessage;
import jakarta.jms.Session;
import jakarta.jms.StreamMessage;
import jakarta.jms.TextMessage;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.qpid.jms.JmsConnectionFactory;

public final class Jms {
  private static final long WAIT_MS = 60_000;
  private static final long TIME_TO_LIVE_MS = 3_600_000;

  public static void main(String[] args) throws JMSException {
    try (Connection connection = new JmsConnectionFactory(args[0]).createConnection()) {
      Session session = connection.createSession(false, Session.AUTO_ACKNOWLEDGE);
      MessageConsumer consumer = session.createConsumer(session.createQueue(args[2]));
      connection.start();
      List<Message> sent = messages(session);
      MessageProducer producer = session.createProducer(session.createQueue(args[1]));
      for (int index = 0; index < sent.size(); index += 1) {
        // Priorities from 2 on, and a time to live for every other one.
        long timeToLive = index % 2 == 0 ? TIME_TO_LIVE_MS : 0;
        producer.send(sent.get(index), DeliveryMode.PERSISTENT, 2 + index, timeToLive);
        print(sent.get(index));
      }
      System.out.println("==");
      for (int index = 0; index < sent.size(); index += 1) {
        Message message = consumer.receive(WAIT_MS);
        if (message == null) throw new JMSException(index + " of " + sent.size() + " came");
        print(message);
      }
    }
  }

  private static List<Message> messages(Session session) throws JMSException {
    List<Message> all = new ArrayList<>();
    all.add(session.createTextMessage("grüße, 世界 \uD83D\uDE00"));
    all.add(session.createTextMessage(""));
    all.add(session.createTextMessage(null));
    BytesMessage bytes = session.createBytesMessage();
    bytes.writeBytes(new byte[] {0, -1, 10, 127, -128});
    all.add(bytes);
    MapMessage map = session.createMapMessage();
    map.setString("text", "ü");
    map.setInt("int", -5);
    map.setLong("long", Long.MAX_VALUE);
    map.setShort("short", (short) 7);
    map.setByte("byte", (byte) -1);
    map.setBoolean("boolean", true);
    map.setChar("char", 'ß');
    map.setFloat("float", 1.5f);
    map.setDouble("double", 0.1);
    map.setBytes("bytes", new byte[] {1, 0, -1});
    map.setObject("null", null);
    all.add(map);
    LinkedHashMap<String, Integer> object = new LinkedHashMap<>();
    object.put("one", 1);
    all.add(session.createObjectMessage(object));
    StreamMessage stream = session.createStreamMessage();
    stream.writeInt(1);
    stream.writeString("two");
    stream.writeBytes(new byte[] {3});
    all.add(stream);
    all.add(session.createMessage());
    for (Message message : all) setAll(session, message, all.indexOf(message));
    return all;
  }

  private static void setAll(Session session, Message message, int index) throws JMSException {
    message.setJMSType("order");
    boolean isQueue = index % 2 == 0;
    message.setJMSReplyTo(isQueue ? session.createQueue("replies") : session.createTopic("replies"));
    if (isQueue) message.setJMSCorrelationID("correlation-ü");
    else message.setJMSCorrelationIDAsBytes(new byte[] {(byte) 200, 0, 1});
    message.setStringProperty("text", "ü");
    message.setIntProperty("int", Integer.MIN_VALUE);
    message.setLongProperty("long", Long.MIN_VALUE);
    message.setShortProperty("short", (short) 300);
    message.setByteProperty("byte", (byte) 100);
    message.setBooleanProperty("boolean", false);
    message.setFloatProperty("float", 0.25f);
    message.setDoubleProperty("double", Double.MIN_VALUE);
    message.setStringProperty("empty", "");
    message.setStringProperty("JMSXGroupID", "group");
    message.setIntProperty("JMSXGroupSeq", 3);
  }

  private static void print(Message message) throws JMSException {
    List<String> lines = new ArrayList<>();
    lines.add("kind=" + kindOf(message));
    lines.add("body=" + bodyOf(message));
    lines.add("id=" + message.getJMSMessageID());
    lines.add("timestamp=" + message.getJMSTimestamp());
    lines.add("type=" + message.getJMSType());
    lines.add("correlation=" + text(message.getJMSCorrelationID()));
    lines.add("reply=" + message.getJMSReplyTo().getClass().getSimpleName() + " " + message.getJMSReplyTo());
    lines.add("priority=" + message.getJMSPriority());
    lines.add("expiration=" + message.getJMSExpiration());
    lines.add("mode=" + message.getJMSDeliveryMode());
    for (Object name : Collections.list(message.getPropertyNames())) {
      if (name.equals("JMSXDeliveryCount")) continue;
      lines.add("property " + name + "=" + text(message.getObjectProperty(String.valueOf(name))));
    }
    Collections.sort(lines);
    System.out.println(String.join("\n", lines) + "\n--");
  }

  private static String kindOf(Message message) {
    if (message instanceof TextMessage) return "text";
    if (message instanceof BytesMessage) return "bytes";
    if (message instanceof MapMessage) return "map";
    if (message instanceof ObjectMessage) return "object";
    if (message instanceof StreamMessage) return "stream";
    return "none";
  }

  private static String bodyOf(Message message) throws JMSException {
    if (message instanceof TextMessage each) return text(each.getText());
    if (message instanceof BytesMessage each) {
      each.reset();
      byte[] bytes = new byte[(int) each.getBodyLength()];
      each.readBytes(bytes);
      return text(bytes);
    }
    if (message instanceof MapMessage each) {
      List<String> entries = new ArrayList<>();
      for (Object name : Collections.list(each.getMapNames())) {
        entries.add(name + "=" + text(each.getObject(String.valueOf(name))));
      }
      Collections.sort(entries);
      return entries.toString();
    }
    if (message instanceof ObjectMessage each) {
      return text(((Map<?, ?>) each.getObject()).toString() + each.getObject().getClass());
    }
    if (message instanceof StreamMessage each) {
      each.reset();
      return text(each.readInt()) + text(each.readString()) + text(each.readObject());
    }
    return "";
  }

  /** A value with its class, bytes in hex. */
  private static String text(Object value) {
    if (value == null) return "null";
    String plain = value instanceof byte[] bytes ? HexFormat.of().formatHex(bytes) : value.toString();
    return value.getClass().getSimpleName() + ":" + plain;
  }
}
